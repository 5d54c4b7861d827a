"""Commands on dead letters: list, show, replay, discard. How they lie on the bus is in services/maintenance."""

from typing import Annotated

import typer

from services.cli.options import DEFAULT_DATA, As, Data, Output, UsageError, create_app
from services.cli.resources import run_on_bus
from services.cli.terminal import print_json, print_pairs, print_table
from services.maintenance import dead_letters
from services.maintenance.dead_letters import DeadLetterChoice, DeadLetterGroup, group_dead_letters

app = create_app()
dead_app = create_app(help="Messages that could not count, with the reason.")
app.add_typer(dead_app, name="dead")

OfReason = Annotated[str | None, typer.Option("--reason", help="Those that were refused for this reason.")]
OfSource = Annotated[str | None, typer.Option("--source", help="Those of this publisher.")]
Sequences = Annotated[list[int] | None, typer.Argument(metavar="SEQ…", help="Originals, as listed.")]
Everything = Annotated[bool, typer.Option("--all", help="All there are.")]


@dead_app.command("list")
def dead_list(
    reason: OfReason = None,
    source: OfSource = None,
    group: Annotated[bool, typer.Option("--group", help="How many of each reason and publisher.")] = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """The dead letters, the oldest first."""
    choice = make_choice(None, reason, source, reason is None and source is None)
    found = run_on_bus("dead list", data, lambda nc: dead_letters.choose(nc, choice))
    match output, group:
        case Output.JSON, False:
            print_json([letter.to_json() for letter in found])
        case Output.JSON, True:
            print_json([each._asdict() for each in group_dead_letters(found)])
        case _, False:
            print_table(dead_letters.DEAD_LETTER_COLUMNS, (letter.to_row() for letter in found))
        case _, True:
            print_table(DeadLetterGroup._fields, (each.to_row() for each in group_dead_letters(found)))


@dead_app.command("show")
def dead_show(
    sequence: Annotated[int, typer.Argument(metavar="SEQ", help="The sequence of the original, as listed.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """One dead letter: the reason, and the original headers and bytes."""
    letter = run_on_bus("dead show", data, lambda nc: dead_letters.find(nc, [sequence]))[0]
    if output is Output.JSON:
        print_json(letter.to_full_json())
    else:
        print_pairs(letter.to_fields())


@dead_app.command("replay")
def dead_replay(
    sequences: Sequences = None,
    reason: OfReason = None,
    source: OfSource = None,
    everything: Everything = False,
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """
    Publish originals again, byte for byte, and remove their letters: who was recorded meanwhile counts once, who is
    still wrong comes back.
    """
    choice = make_choice(sequences, reason, source, everything)
    sent = run_on_bus("dead replay", data, lambda nc: dead_letters.replay(nc, choice))
    if output is Output.JSON:
        print_json([{"sequence": letter.sequence, "stored_as": stored} for letter, stored in sent])
    else:
        for letter, stored in sent:
            typer.echo(f"{letter.sequence} stored again as {stored}: {letter.subject}")


@dead_app.command("discard")
def dead_discard(
    sequences: Sequences = None,
    reason: OfReason = None,
    source: OfSource = None,
    everything: Everything = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; needed unless sequences are given.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Remove dead letters for good: these messages will never count."""
    choice = make_choice(sequences, reason, source, everything)
    if not choice.sequences and not yes:
        found = run_on_bus("dead discard", data, lambda nc: dead_letters.choose(nc, choice))
        raise UsageError(f"that would remove {len(found)} dead letters for good; add --yes if they are not needed")
    found = run_on_bus("dead discard", data, lambda nc: dead_letters.discard(nc, choice))
    typer.echo(f"{len(found)} dead letters removed")


def make_choice(
    sequences: list[int] | None, reason: str | None, source: str | None, everything: bool
) -> DeadLetterChoice:
    """Return which dead letters are meant. Raises UsageError for an unknown reason, or unless one way is chosen."""
    if reason is not None and reason not in dead_letters.DEAD_LETTER_REASONS:
        raise UsageError(f"{reason!r} is not a reason; the reasons are {', '.join(dead_letters.DEAD_LETTER_REASONS)}")
    if bool(sequences) + (reason is not None or source is not None) + everything != 1:
        raise UsageError("say which: sequences, --reason and --source, or --all")
    return DeadLetterChoice(sequences or (), reason, source)

"""Commands on dead letters: list, show, replay, discard. How they lie on the bus is in services/maintenance."""

from typing import Annotated

import typer

from services.cli.options import DEFAULT_DATA, As, Data, Output, UsageError, create_app
from services.cli.resources import run_on_bus
from services.cli.terminal import print_json, print_pairs, print_table
from services.maintenance import dead_letters
from services.maintenance.dead_letters import DeadLetterChoice, DeadLetterGroup, WaitingDeadLetter, group_dead_letters
from services.text.formats import format_wall_time

app = create_app()
dead_app = create_app(help="Messages that could not count, with the reason.")
app.add_typer(dead_app, name="dead")

DEAD_LETTER_COLUMNS = ("sequence", "reason", "refused", "subject", "error")

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
    found = run_on_bus("dead list", data, lambda nc: dead_letters.select_dead_letters(nc, choice))
    match output, group:
        case Output.JSON, False:
            print_json([letter.to_json() for letter in found])
        case Output.JSON, True:
            print_json([each._asdict() for each in group_dead_letters(found)])
        case _, False:
            print_table(DEAD_LETTER_COLUMNS, (build_row(letter) for letter in found))
        case _, True:
            print_table(DeadLetterGroup._fields, (build_group_row(each) for each in group_dead_letters(found)))


@dead_app.command("show")
def dead_show(
    sequence: Annotated[int, typer.Argument(metavar="SEQ", help="The sequence of the original, as listed.")],
    output: As = Output.TABLE,
    data: Data = DEFAULT_DATA,
) -> None:
    """One dead letter: the reason, and the original headers and bytes."""
    letter = run_on_bus("dead show", data, lambda nc: dead_letters.find_dead_letters(nc, [sequence]))[0]
    if output is Output.JSON:
        print_json(letter.to_full_json())
    else:
        print_pairs(list_fields(letter))


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
        found = run_on_bus("dead discard", data, lambda nc: dead_letters.select_dead_letters(nc, choice))
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


def build_row(dead_letter: WaitingDeadLetter) -> tuple[str, ...]:
    """Return a dead letter for people, in the order of DEAD_LETTER_COLUMNS."""
    refused = format_wall_time(dead_letter.refused_at, None)
    return (
        str(dead_letter.sequence),
        dead_letter.reason,
        refused,
        escape_control(dead_letter.subject),
        dead_letter.error,
    )


def list_fields(dead_letter: WaitingDeadLetter) -> list[tuple[str, str]]:
    """Return a dead letter for people: the reason, the headers and the body, all safe for a terminal."""
    return [
        ("sequence", str(dead_letter.sequence)),
        ("reason", dead_letter.reason),
        ("error", dead_letter.error),
        ("subject", escape_control(dead_letter.subject)),
        ("refused", format_wall_time(dead_letter.refused_at, None)),
        *((f"header {escape_control(name)}", escape_control(value)) for name, value in dead_letter.headers.items()),
        ("body", escape_control(dead_letter.body.decode(errors="backslashreplace"))),
    ]


def build_group_row(group: DeadLetterGroup) -> tuple[str, ...]:
    """Return a group for people, in the order of its fields."""
    source = "-" if group.source is None else escape_control(group.source).replace("\n", "\\n")
    oldest, newest = format_wall_time(group.oldest, None), format_wall_time(group.newest, None)
    return str(group.letters), group.reason, source, oldest, newest


def escape_control(text: str) -> str:
    """Escape what a terminal would obey; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)

"""The words of the source: those that a function's name may begin with, and those that no public name has."""

# In the imperative, as the first word of a function's name and of its docstring.
VERBS = frozenset(
    """
    abort accept acknowledge acquire act add adjust admit advance align allow announce answer append apply ask
    assert assign attach await backtest begin bind block buffer build cache calculate call cancel capture cast
    catch chain change check choose clean clear close collect combine come commit compare compile complete compute
    confirm connect consume contain convert copy count cover create cross cut decide declare decode define delete
    deliver deny derive describe detach detect determine differ disable discard disconnect dispatch display divide do
    drain draw drop dump emit enable encode end enforce ensure enter erase escalate escape estimate evaluate evict
    examine exclude execute exit expand expect explain export expose extend extract fail feed fetch fill filter
    find finish fix flag flatten flush fold follow forget format forward freeze fulfil gather generate get give go
    grant group guard guess handle hang happen has hash have help hide hold identify ignore import include
    increase index infer inject insert inspect install invoke is iterate join judge keep kill know label lay leave
    let limit line link list listen load locate lock log look make map mark match measure meet merge migrate move
    name narrow need normalise notify nudge observe offer open order own pack page parse partition pass paste
    pause pay peek pick place plan play poll post prepare present print probe process produce project prove
    provide provision prune publish pull push put query quit quote raise rank reach read rebuild recall receive
    record recover recreate redact reduce refresh refuse register reject release reload remove rename render
    reopen repartition repeat replace replay reply report request require resend reserve reset resolve respond
    rest restart restore resume retract retry return reveal revoke rewrite roll round route run save scale scan
    schedule score scrape seal search see seek select send separate serve set settle shorten should show shrink
    shut sign simulate skip sleep slice sort split spread stamp start state stay step stop store stream strip
    submit subscribe subtract sum supersede supervise swap synchronise take tally terminate test tick tidy track
    transform translate treat trim truncate try turn undo unpack unregister unseal unwrap update upgrade use
    validate verify visit wait wake walk warn watch wrap write yield
    can correct decide learn persist summarise
    """.split()  # noqa: SIM905
)

# Not as a word of a public name; what to write instead. docs/glossary.md has the terms.
BANNED = {
    "apart": "min_interval",
    "asking": "read_log",
    "changing": "write_log",
    "course": "timeline",
    "difference": "decisions (of a judgement), discrepancy (found by sla verify)",
    "divided": "repartitioned",
    "hopeless": "on_hang",
    "keeper": "supervisor",
    "letter": "dead_letter",
    "mine": "acquire_fair_share",
    "nobody": "what is so: is_unassigned, has_no_reader",
    "patience": "connect_timeout, request_timeout",
    "picture": "snapshot",
    "said": "current, published, answered",
    "says": "phrase, describe, answer",
    "shares": "leases",
    "slack": "clock_margin",
    "spell": "cycle_key",
    "spells": "cycle_keys",
    "standing": "status, progress",
    "story": "explanation",
    "stretch": "phase",
    "superseded": "fenced",
    "taken": "committed_sequence",
    "tell": "publish, announce, notify",
    "tells": "publish, announce, notify",
    "told": "published, announced, notified",
    "turns": "heartbeats",
    "whatever": "the thing itself",
    "whoever": "the role",
    "whole": "run_to_completion, complete",
    "withdrawn": "retracted",
    "works": "record_heartbeat",
}

# Names with such a word that others rely on, or that are stored: they stay.
KEPT = {
    "FactWithdrawn": "ticket.fact_withdrawn: of a fact; a breach is retracted",
    "Fact.withdrawn_by": "of a fact, by that event",
    "Level.tell": "a key of the policy file: whom an escalation concerns",
    "SlaEscalated.tell": "a member of the data of sla.escalated: whom an escalation concerns",
    "EscalationRaised.tell": "stored, and published as it is",
}

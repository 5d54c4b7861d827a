"""`python -m tests.support.newer_holidays up …`: `sla` with a package `holidays` that knows a day more."""

from collections.abc import Mapping

from services.cli.main import main
from sla import policy_file

build_holidays = policy_file._build_holidays


def build_more_holidays(country: str, subdivision: str | None, categories: tuple[str, ...]) -> Mapping[str, str]:
    return {**build_holidays(country, subdivision, categories), "2027-06-25": "Midsummer Eve"}


if __name__ == "__main__":
    policy_file._build_holidays = build_more_holidays  # type: ignore[assignment]
    main()

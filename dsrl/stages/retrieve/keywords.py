"""What is searched for: keywords as the teacher names them."""

from pydantic import BaseModel, field_validator

from dsrl.core.digest import normalised

SHORTEST, LONGEST = 2, 100
"""Characters of a keyword."""


class Keywords(BaseModel):
    """The teacher's reply; one with unfit keywords goes back to it once."""

    keywords: list[str]

    @field_validator("keywords")
    @classmethod
    def _check(cls, keywords: list[str]) -> list[str]:
        for keyword in keywords:
            if not SHORTEST <= len(keyword.strip()) <= LONGEST:
                raise ValueError(f"a keyword has {SHORTEST} to {LONGEST} characters, unlike {keyword[:LONGEST]!r}")
        return keywords


def distinct(keywords: list[str]) -> tuple[str, ...]:
    """In order, without empty ones and without repeats that differ in case or spacing only."""
    first: dict[str, str] = {}
    for keyword in keywords:
        first.setdefault(normalised(keyword), keyword.strip())
    return tuple(keyword for keyword in first.values() if keyword)

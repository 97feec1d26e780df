"""The README and the pages of `docs/` as those read them who copy from them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(language: str, page: str = "README.md") -> list[str]:
    """The blocks of code in a language on a page, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands(heading: str) -> list[list[str]]:
    """The words of the commands below the comment that begins with this heading, without ``rsprune``."""
    lines = iter("\n".join(blocks("console")).splitlines())
    found = next(line for line in lines if line.startswith(f"# {heading}"))
    words = []
    for line in lines:
        if line.startswith("#"):
            break
        if line.startswith("rsprune "):
            words.append(shlex.split(line, comments=True)[1:])
    assert words, found
    return words

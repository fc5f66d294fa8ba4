"""The table of mutants, ktest/mutations."""

import re
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "mutations"


class Mutation:
    """A change of a few lines that follow one another."""

    def __init__(self, title, file, lines):
        self.title, self.file = title, file
        self.old = [line[1:].strip() for line in lines if line[0] in "- "]
        self.new = [line[1:] for line in lines if line[0] in "+ "]
        self.text = "\n".join([title, file, *lines])

    def of(self, before):
        """Returns the file with the change, or None where its lines are not there exactly once."""
        lines = before.split("\n")
        bare = [line.strip() for line in lines]
        places = [i for i in range(len(lines)) if bare[i : i + len(self.old)] == self.old]
        if len(places) != 1:
            return None
        lines[places[0] : places[0] + len(self.old)] = self.new
        return "\n".join(lines)

    def misfit(self):
        """Returns what to say where the lines are not there exactly once."""
        heading = f"{self.title}: {self.file} does not have these lines once:"
        return "\n".join([heading, *("    " + line for line in self.old)])


def mutations():
    """Reads the table: blocks of a title, a file, and lines as in a diff."""
    text = re.sub(r"^#.*\n", "", TABLE.read_text(), flags=re.MULTILINE)
    for block in re.split(r"\n\n+", text.strip("\n")):
        head, *lines = block.split("\n")
        file, title = head.split(": ", 1)
        yield Mutation(title, file, lines)

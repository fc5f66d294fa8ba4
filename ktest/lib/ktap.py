"""KTAP for the scripts in Python, as ktap.bash prints it for those in bash."""


class Ktap:
    """The results of as many tests as `count` says."""

    def __init__(self, count):
        self.number = 0
        print(f"KTAP version 1\n1..{count}", flush=True)

    def result(self, passed, name):
        """The result of the next test."""
        self.number += 1
        print(f"{'ok' if passed else 'not ok'} {self.number} {name}", flush=True)


def comment(text):
    """Prints lines as comments on the result that follows."""
    for line in text.splitlines():
        print("#", line, flush=True)

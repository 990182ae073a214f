"""`python -m markovlm`."""

from markovlm.cli import entry

if __name__ == "__main__":
    entry()

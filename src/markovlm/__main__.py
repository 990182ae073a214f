"""`python -m markovlm`."""

from markovlm.cli.main import entry

if __name__ == "__main__":
    entry()

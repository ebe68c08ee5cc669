"""The storm: commands that are killed, starved and disturbed by the hundred, and must lose nothing. `make storm` runs it.

Not part of `make test`, because it takes an hour. What it found is in docs/reliability.md.
"""

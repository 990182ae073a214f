"""Checks before training: settings with a known outcome, in configurations of TRL, verl and ours."""

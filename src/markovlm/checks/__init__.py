"""Before training: settings whose outcome is known, in configurations of TRL, verl and ours."""

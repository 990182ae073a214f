"""The health guard in other people's training loops: a callback, a function over dicts, a follower of growing logs."""

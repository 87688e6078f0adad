"""The `course` command: everything around the lessons that is not a lesson."""

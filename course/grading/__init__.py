"""`course grade`: a class's workspaces judged by fresh tests, each learner apart from every other.

grade.py hands out copies and collects verdicts; submissions.py reads folders and zips; assess.py judges one learner
inside a copy; seal.py vouches for each pass; gradebook.py writes the tables.
"""

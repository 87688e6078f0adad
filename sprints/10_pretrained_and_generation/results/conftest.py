# Scripts, not tests: they import each other by bare name, as `python results/x.py` lets them.
collect_ignore_glob = ["*.py"]

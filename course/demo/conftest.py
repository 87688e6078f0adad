"""`app.py` imports Gradio, which not everybody has; it has no doctests."""

collect_ignore = ["app.py"]

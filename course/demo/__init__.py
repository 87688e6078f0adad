"""`course demo`: a page in the browser on which people write with a model and look at what it was thinking.

`app.py` is the page, `session.py` what a request does, without Gradio; `models.py` what there is to write with,
`strategies.py` the ways to choose a token, `coloring.py` tokens as HTML, `attention.py` the map of a head, and
`server.py` the address.
"""

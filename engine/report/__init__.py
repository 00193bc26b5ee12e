"""Pages to look at: report.html of an evaluation, training.html of a training run. Each is one file and asks no server.

charts.py computes what is drawn, evaluation_page.py and training_page.py what is said; page.html and its parts, page.css
and page.js hold what both pages look like and do.
"""

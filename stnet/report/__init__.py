"""Pages to look at, each of them one file that asks no server: report.html of an evaluation, training.html of training.

charts.py computes what is drawn, evaluation_page.py and training_page.py what is said; page.html and its parts,
page.css and page.js hold what both pages look like and do.
"""

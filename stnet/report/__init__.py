"""HTML pages of one file each: templates, style and script of report.html and training.html, and their charts."""

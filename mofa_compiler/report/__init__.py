"""The report of a rewrite, and what draws it: terminal, Markdown, HTML, figures."""

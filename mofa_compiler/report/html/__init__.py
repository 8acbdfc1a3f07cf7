"""A report as one HTML page that needs nothing but itself; `page.render` makes it."""

"""Inputs on which the product was once wrong (`../shared/cases`), each a test of the right behaviour.

`python -m tests.cases ../shared/cases` shows each by name with its result. A test belongs to the files that its
`@pytest.mark.case("front-end/ceil_padding.py")` names, relative to that folder.
"""

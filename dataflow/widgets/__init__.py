"""Widgets: plans, jobs, datasets and requests to look at and to handle in a notebook.

``dataflow.view`` makes them. What they show are facts; what is done with them are commands to the
session. :mod:`dataflow.widgets.shown` says how they come to the page.
"""

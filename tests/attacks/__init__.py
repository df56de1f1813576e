"""Attacks on the package that run by hand or with ``tox run -e attacks``; docs/house.md says how."""

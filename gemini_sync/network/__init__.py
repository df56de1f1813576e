"""HTTP over requests and urllib3, with deadlines and cancelling; the only folder that imports these two."""

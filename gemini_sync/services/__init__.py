"""Google's services: where a request goes, how it is wrapped, how its chunks unwrap."""

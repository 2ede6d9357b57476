"""Flows: what workflows keep on the server, per noun; they run on the client."""

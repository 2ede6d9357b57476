"""What all routes share: declarations and OpenAPI, errors, NDJSON, WebSocket streams."""

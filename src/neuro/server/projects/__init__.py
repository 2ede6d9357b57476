"""Projects and their live jobs: what workflows keep on the server; they run on the client."""

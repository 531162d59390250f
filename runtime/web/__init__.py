"""The page behind `web://`: live pictures, charts and controls over HTTP, and the same for programs."""

"""What all methods of moving files share: publishing, verifying, resuming, retrying, caching."""

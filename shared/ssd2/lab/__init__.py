"""The laboratory: measurements that studies use, and nobody needs to run a pair."""

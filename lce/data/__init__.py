"""From documents to batches: fetch, split into sentences, augment, encode, mask, batch."""

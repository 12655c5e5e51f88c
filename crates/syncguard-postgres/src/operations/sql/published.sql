-- What a leader has published, until it expires. $1 the key.
SELECT fence, candidate, encode(value, 'hex')
FROM {leaders}
WHERE key = $1 AND expires_at_ms > {now} - 1000

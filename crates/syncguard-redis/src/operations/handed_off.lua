-- Only now, since a grant that failed has left the lease that was there.
if previous ~= index then call('DEL', previous) end

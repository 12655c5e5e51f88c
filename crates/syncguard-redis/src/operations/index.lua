-- The index may be missing, but it may not hold anything else: then nothing is changed.
if live and mine then
  local name = call('GET', index)
  if name and name ~= lock then
    return {err = 'SGINDEX the id key names another lock'}
  end
end

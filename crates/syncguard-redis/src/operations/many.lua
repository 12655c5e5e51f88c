-- Many operations in one call, each as if it were alone. KEYS: those of all operations in turn. ARGV:
-- for each operation its name and its arguments.
-- Answers, for each operation in turn, with 0 and its answer, or with 1 and its error: one that fails
-- must not undo or cut off the others.
local answers, count, key, arg = {}, 0, 1, 1
while ARGV[arg] do
  local operation = operations[ARGV[arg]]
  local last_key, last_arg = key + operation.keys - 1, arg + operation.args
  local ok, answer = pcall(
    operation.run, {unpack(KEYS, key, last_key)}, {unpack(ARGV, arg + 1, last_arg)})
  -- Redis 6 reports an error as text, later ones as a table, as the operations do.
  local failed = not ok
  if type(answer) == 'table' and answer.err then failed, answer = true, answer.err end
  answers[count + 1] = failed and 1 or 0
  -- A nil would end the list.
  answers[count + 2] = answer or false
  count, key, arg = count + 2, last_key + 1, last_arg + 1
end
return answers

-- Many operations in one call, each as if it were alone. KEYS: those of all operations in turn. ARGV:
-- for each operation its name, the number of its keys, the number of its arguments, and these.
-- Answers, for each operation in turn, with 0 and its answer, or with 1 and its error: one that fails
-- must not undo or cut off the others.
local answers, key, arg = {}, 1, 1
while ARGV[arg] do
  local last_key, last_arg = key + ARGV[arg + 1] - 1, arg + 2 + ARGV[arg + 2]
  local ok, answer = pcall(
    operations[ARGV[arg]], {unpack(KEYS, key, last_key)}, {unpack(ARGV, arg + 3, last_arg)})
  -- Redis 6 reports an error as text, later ones as a table, as the operations do.
  local failed = not ok
  if type(answer) == 'table' and answer.err then failed, answer = true, answer.err end
  answers[#answers + 1] = failed and 1 or 0
  -- A nil would end the list.
  answers[#answers + 1] = answer or false
  key, arg = last_key + 1, last_arg + 1
end
return answers

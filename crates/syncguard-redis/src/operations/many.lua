-- Many operations in one call, each as if it were alone. KEYS: those of all operations in turn. ARGV:
-- for each operation its name and its arguments.
-- Answers, for each operation in turn, with 0 and its answer, or with 1 and its error: one that fails
-- must not undo or cut off the others.
local answers, count, key, arg = {}, 0, 1, 1
while ARGV[arg] do
  local name = ARGV[arg]
  local next_key, next_arg = key + keys[name], arg + args[name] + 1
  local ok, answer = pcall(run, name, key, arg)
  -- Redis 6 reports an error as text, later ones as a table, as the operations do.
  local failed = not ok
  if type(answer) == 'table' and answer.err then failed, answer = true, answer.err end
  answers[count + 1] = failed and 1 or 0
  -- A nil would end the list.
  answers[count + 2] = answer or false
  count, key, arg = count + 2, next_key, next_arg
end
return answers

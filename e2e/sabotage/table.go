package sabotage

// Table is every sabotage, in the order in which they are committed.
func Table() []Sabotage {
	return []Sabotage{
		{
			Name:  "the policy evaluator always allows",
			File:  "internal/policy/policy.go",
			Old:   "func Evaluate(s Set, c Connection) Verdict {\n",
			New:   "func Evaluate(s Set, c Connection) Verdict {\n\tif len(s.Policies) >= 0 {\n\t\treturn Verdict{Allow: true, Cause: CauseNoPolicy, Rule: -1}\n\t}\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
	}
}

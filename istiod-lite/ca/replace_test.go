package ca

import "testing"

func TestReplacingTheSignerNeverTearsTheMeshApart(t *testing.T) {
	first, second := must(NewRoot("first", epoch)), must(NewRoot("second", epoch))
	both := *first
	both.Roots = append(both.Roots[:1:1], second.Cert)
	switched := *second
	switched.Roots = both.Roots
	a := must(NewAuthority(first, at(epoch)))
	for _, step := range []struct {
		name     string
		m        *Material
		replaced bool
		refused  bool
	}{
		{name: "the same again changes nothing", m: must(ParseMaterial(must(first.Data())))},
		{name: "a root that nobody trusts yet is refused", m: second, refused: true},
		{name: "the new root is added beside the old one", m: &both, replaced: true},
		{name: "the new root signs", m: &switched, replaced: true},
		{name: "the old root goes", m: second, replaced: true},
		{name: "and cannot come back alone", m: first, refused: true},
	} {
		replaced, err := a.Replace(step.m)
		if replaced != step.replaced || (err != nil) != step.refused {
			t.Errorf("%s: replaced %v with error %v", step.name, replaced, err)
		}
		if want := step.m; !step.refused && !a.material.Load().equal(want) {
			t.Errorf("%s: signs with something else", step.name)
		}
	}
}

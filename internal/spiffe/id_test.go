package spiffe

import "testing"

func TestIdentitiesAreReadAndWritten(t *testing.T) {
	for _, tt := range []struct {
		sentence, text string
		want           ID
		ok             bool
	}{
		{"the mesh's form", "spiffe://cluster.local/ns/shop/sa/client", ID{"cluster.local", "shop", "client"}, true},
		{"another trust domain", "spiffe://prod.example.org/ns/a/sa/b", ID{"prod.example.org", "a", "b"}, true},
		{"no scheme", "cluster.local/ns/shop/sa/client", ID{}, false},
		{"another scheme", "https://cluster.local/ns/shop/sa/client", ID{}, false},
		{"no trust domain", "spiffe:///ns/shop/sa/client", ID{}, false},
		{"an upper-case trust domain", "spiffe://Cluster.local/ns/shop/sa/client", ID{}, false},
		{"too few parts", "spiffe://cluster.local/ns/shop", ID{}, false},
		{"too many parts", "spiffe://cluster.local/ns/shop/sa/client/x", ID{}, false},
		{"another path", "spiffe://cluster.local/namespace/shop/sa/client", ID{}, false},
		{"an empty namespace", "spiffe://cluster.local/ns//sa/client", ID{}, false},
		{"a port", "spiffe://cluster.local:80/ns/shop/sa/client", ID{}, false},
		{"a query", "spiffe://cluster.local/ns/shop/sa/client?x", ID{}, false},
		{"dots that climb", "spiffe://cluster.local/ns/../sa/client", ID{}, false},
		{"nothing", "", ID{}, false},
	} {
		got, err := Parse(tt.text)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%s: %q is %+v, %v; want %+v, ok %v", tt.sentence, tt.text, got, err, tt.want, tt.ok)
		}
		if err == nil && got.String() != tt.text {
			t.Errorf("%s: %q is written %q", tt.sentence, tt.text, got)
		}
		if err == nil && "spiffe://"+got.Principal() != tt.text {
			t.Errorf("%s: the principal of %q is %q", tt.sentence, tt.text, got.Principal())
		}
	}
}

func TestNoIdentityIsEmptyText(t *testing.T) {
	var none ID
	if !none.IsZero() || none.String() != "" || none.Principal() != "" {
		t.Errorf("the zero identity is %q, %q", none, none.Principal())
	}
	if _, err := none.SPIFFE(); err == nil {
		t.Error("the zero identity has a SPIFFE form")
	}
	id := ID{"td", "n", "s"}
	if s, err := id.SPIFFE(); err != nil || s.String() != id.String() {
		t.Errorf("%s has SPIFFE form %s, %v", id, s, err)
	}
}

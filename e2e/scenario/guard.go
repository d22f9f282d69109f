package scenario

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/waypoint/authn"
	"github.com/ambit-mesh/ambit/waypoint/match"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// userKey signs the tokens of requests.txt. Its public half is
//
//	{"keys":[{"kty":"OKP","crv":"Ed25519","x":"LLX3NecDhW9UJplQZ4xWyjRnut2wyLbgZwBNddOs8iI"}]}
var userKey = ed25519.NewKeyFromSeed([]byte("the key of every scenario's user"))

// sign makes a token of claims in JSON.
func sign(claims string) (string, error) {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: userKey}, nil)
	if err != nil {
		return "", err
	}
	signed, err := s.Sign([]byte(claims))
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// guarded is what a waypoint's policies say of a request, in words; of one that
// passes, the words go before what becomes of it. A nil q is a connection that
// is not HTTP.
func guarded(t *table.Table, s *mesh.Service, port uint16, client *mesh.Workload, q *match.Request) (words string, passes bool) {
	set := t.Policies(s.Key())
	r := policy.Request{Connection: policy.Connection{Source: client.Identity()}}
	if len(client.Addresses) > 0 {
		r.SourceIP = client.Addresses[0]
	}
	if len(s.Addresses) > 0 {
		r.Destination = netip.AddrPortFrom(s.Addresses[0].Prefix.Addr(), port)
	}
	if q != nil {
		r.HTTP = &policy.HTTP{Method: q.Method, Path: q.Path, Host: q.Host, Header: q.Header}
	}
	asked := ""
	for _, a := range policy.Asks(set, r) {
		if a.Policy.Provider == nil {
			return a.Verdict(policy.CauseNoProvider).String(), false
		}
		asked += fmt.Sprintf("asks %s, ", a.Policy.Provider.Name)
	}
	r.Asked = true
	if q != nil {
		var users authn.Verifier
		token, err := users.Check(&authn.Request{Header: http.Header(q.Header)}, t.Authentications(s.Key()), time.Now())
		if err != nil {
			return asked + "401 " + err.Error(), false
		}
		r.HTTP.Token = token
	}
	v := policy.EvaluateRequest(set, r)
	if v.Cause == policy.CauseNoPolicy {
		return asked, true
	}
	if v.Allow {
		return asked + v.String() + ", ", true
	}
	return asked + v.String(), false
}

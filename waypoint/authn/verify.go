package authn

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// algorithms are those that are verified: by public keys only. "none" is no
// signature, and a public key must never be taken for an HMAC's secret.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

const (
	// maxToken bounds a token's text.
	maxToken = 64 << 10
	// defaultLeeway is Envoy's.
	defaultLeeway = time.Minute
	// maxSets bounds the sets of keys that are remembered.
	maxSets = 256
	// maxGood bounds the tokens that are remembered, and maxKnown the text of each.
	maxGood  = 1024
	maxKnown = 4 << 10
	// leastRSA is the least size of RSA keys (RFC 7518 3.3), in bits.
	leastRSA = 2048
)

// verified is a token whose signature is good, with all that comes of it. It is
// immutable.
type verified struct {
	head    head
	token   *policy.Token
	headers []mesh.Header // for the backend
}

// known names a verified token: a rule with other keys is another rule.
type known struct {
	rule  *mesh.TokenRule
	token string
}

// head is the claims that have a meaning of their own.
type head struct {
	Issuer    string           `json:"iss"`
	Subject   string           `json:"sub"`
	Audience  jwt.Audience     `json:"aud"`
	Expiry    *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf"`
	Presenter string           `json:"azp"`
}

// verify finds the rule that takes a token, by its place in c.rules. The error
// is that of the last rule of its issuer.
func (v *Verifier) verify(c *candidate, now time.Time) (t *verified, rule int, err error) {
	for i, r := range c.rules {
		if t := v.known(r, c.text); t != nil {
			return t, i, t.head.fits(r, now)
		}
	}
	if len(c.text) > maxToken {
		return nil, 0, errors.New("it is too long")
	}
	jws, err := jose.ParseSignedCompact(c.text, algorithms)
	if err != nil {
		return nil, 0, err
	}
	var claimed head
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &claimed); err != nil {
		return nil, 0, fmt.Errorf("reading its claims: %w", err)
	}
	err = fmt.Errorf("issuer %q is not expected there", claimed.Issuer)
	for i, r := range c.rules {
		if r.Issuer != claimed.Issuer {
			continue
		}
		if t, err = v.verifyBy(r, jws, c.text, now); err == nil {
			return t, i, nil
		}
	}
	return nil, 0, err
}

func (v *Verifier) verifyBy(r *mesh.TokenRule, jws *jose.JSONWebSignature, text string, now time.Time) (*verified, error) {
	payload, err := v.keys(r).verify(jws)
	if err != nil {
		if r.Unready != "" {
			err = fmt.Errorf("the keys of issuer %s %s", r.Issuer, r.Unready)
		}
		return nil, err
	}
	t := &verified{}
	if err := json.Unmarshal(payload, &t.head); err != nil {
		return nil, fmt.Errorf("reading its claims: %w", err)
	}
	var claims map[string]any
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return nil, fmt.Errorf("reading its claims: %w", err)
	}
	if err := t.head.fits(r, now); err != nil {
		return nil, err
	}
	t.headers = outputs(r, claims, payloadOf(text))
	t.token = t.head.token(r, claims)
	v.remember(r, text, t)
	return t, nil
}

// known finds a token that was verified by the very rule. Its signature stays
// good; its time may end.
func (v *Verifier) known(r *mesh.TokenRule, text string) *verified {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good[known{r, text}]
}

func (v *Verifier) remember(r *mesh.TokenRule, text string, t *verified) {
	if len(text) > maxKnown {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.good == nil || len(v.good) >= maxGood {
		v.good = map[known]*verified{} // with those that nobody sends any more
	}
	v.good[known{r, text}] = t
}

// fits checks times and audiences. A token without an end never ends, as
// upstream.
func (h *head) fits(r *mesh.TokenRule, now time.Time) error {
	leeway := r.Leeway
	if leeway == 0 {
		leeway = defaultLeeway
	}
	switch {
	case h.Expiry != nil && !now.Before(h.Expiry.Time().Add(leeway)):
		return fmt.Errorf("it expired at %s", h.Expiry.Time().UTC().Format(time.RFC3339))
	case h.NotBefore != nil && now.Before(h.NotBefore.Time().Add(-leeway)):
		return fmt.Errorf("it is not valid before %s", h.NotBefore.Time().UTC().Format(time.RFC3339))
	case len(r.Audiences) > 0 && !slices.ContainsFunc(h.Audience, func(a string) bool { return slices.Contains(r.Audiences, a) }):
		return fmt.Errorf("it is for %q", []string(h.Audience))
	}
	return nil
}

// keySet is the keys of an issuer that can verify.
type keySet struct{ keys []jose.JSONWebKey }

// keys reads a rule's keys, once.
func (v *Verifier) keys(r *mesh.TokenRule) *keySet {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s, ok := v.sets[r.Keys]; ok {
		return s
	}
	if v.sets == nil || len(v.sets) >= maxSets {
		v.sets = map[string]*keySet{} // keys that rotated away are forgotten here
	}
	s := readKeys(r.Keys)
	v.sets[r.Keys] = s
	return s
}

// readKeys passes over keys that are no use: of an unknown kind, secret, weak,
// or for something else.
func readKeys(text string) *keySet {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	s := &keySet{}
	if json.Unmarshal([]byte(text), &raw) != nil {
		return s // verifies nothing
	}
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(one, &k) != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		if p, ok := k.Key.(*rsa.PublicKey); ok && p.N.BitLen() < leastRSA {
			continue
		}
		s.keys = append(s.keys, k)
	}
	return s
}

// verify tries the keys that may have signed: those of the token's key id and
// algorithm, or without one.
func (s *keySet) verify(jws *jose.JSONWebSignature) ([]byte, error) {
	if len(jws.Signatures) != 1 {
		return nil, errors.New("it has not just one signature")
	}
	h := jws.Signatures[0].Protected
	err := fmt.Errorf("no key %q of algorithm %s is known", h.KeyID, h.Algorithm)
	for _, k := range s.keys {
		if k.KeyID != "" && h.KeyID != "" && k.KeyID != h.KeyID || k.Algorithm != "" && k.Algorithm != h.Algorithm {
			continue
		}
		var payload []byte
		if payload, err = jws.Verify(k.Key); err == nil {
			return payload, nil
		}
	}
	return nil, err
}

package match

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// checkRule finds what an author wrote that no request may be given: the
// functions that apply it need not ask again.
func checkRule(rule *mesh.RouteRule) error {
	if err := errors.Join(checkFilters(&rule.Filters), checkPersistence(rule.Persistence)); err != nil {
		return err
	}
	for i := range rule.Backends {
		if err := checkFilters(&rule.Backends[i].Filters); err != nil {
			return fmt.Errorf("backend %d: %w", i, err)
		}
	}
	return nil
}

func checkFilters(f *mesh.Filters) error {
	return errors.Join(checkEdit(f.Request), checkEdit(f.Response), checkRedirect(f.Redirect), checkRewrite(f.Rewrite))
}

func checkEdit(e *mesh.HeaderEdit) error {
	if e == nil {
		return nil
	}
	for _, h := range slices.Concat(e.Set, e.Add) {
		switch {
		case !isToken(h.Name):
			return fmt.Errorf("header %q: not a name", h.Name)
		case slices.Contains(framing, canonical(h.Name)):
			return fmt.Errorf("header %s: belongs to the connection and cannot be edited", h.Name)
		case strings.ContainsFunc(h.Value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return fmt.Errorf("header %s: its value has a control character", h.Name)
		case canonical(h.Name) == "Host" && !isAuthority(h.Value):
			return fmt.Errorf("header Host: %q is no host", h.Value)
		}
	}
	return nil
}

func checkRedirect(r *mesh.Redirect) error {
	switch {
	case r == nil:
		return nil
	case r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https":
		return fmt.Errorf("redirect to the scheme %q: want http or https", r.Scheme)
	case r.Status != 0 && !slices.Contains([]int{301, 302, 303, 307, 308}, r.Status):
		return fmt.Errorf("redirect with the status %d: want 301, 302, 303, 307 or 308", r.Status)
	case r.Host != "" && !isAuthority(r.Host):
		return fmt.Errorf("redirect to %q: no host", r.Host)
	}
	return checkPathEdit(r.Path)
}

func checkRewrite(r *mesh.Rewrite) error {
	switch {
	case r == nil:
		return nil
	case r.Host != "" && !isAuthority(r.Host):
		return fmt.Errorf("rewrite to %q: no host", r.Host)
	}
	return checkPathEdit(r.Path)
}

func checkPathEdit(e *mesh.PathEdit) error {
	if e == nil {
		return nil
	}
	if _, err := Normalize(rooted(e.Value)); err != nil {
		return fmt.Errorf("path %q: %w", e.Value, err)
	}
	return nil
}

// isToken is RFC 9110's form of names.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isAuthority lets nothing through that would end the host within a URL.
func isAuthority(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\?#@"<>`, r) })
}

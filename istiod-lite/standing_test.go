package istiodlite

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/istiod-lite/ledger"
)

// ask asks which generation held versions.
func (h *house) ask(t *testing.T, body string) (answers []verdict, status int) {
	t.Helper()
	resp, err := http.Post("http://"+h.http+"/debug/held", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil {
			t.Fatal(err)
		}
	}
	return answers, resp.StatusCode
}

func TestAnAppliedObjectIsKnownByItsGenerationUntilEveryProxyHasIt(t *testing.T) {
	h := startHouse(t)
	_, c := h.connect(t)
	<-c.Synced()
	const question = `[{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","namespace":"shop","name":"only-front","resourceVersion":"7"},
		{"apiVersion":"apps/v1","kind":"Deployment","namespace":"shop","name":"front","resourceVersion":"8"}]`
	answers, _ := h.ask(t, question)
	if len(answers) != 2 || answers[0].State != ledger.Pending || answers[1].State != ledger.Unread {
		t.Fatalf("before it is there: %+v", answers)
	}
	stood := func() (s standing) {
		if err := json.Unmarshal([]byte(h.get(t, h.http, "/debug/generation")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := stood().Generation
	write(t, filepath.Join(h.dir, "policy.yaml"), strings.Replace(policyYAML, "name: only-front", `name: only-front, resourceVersion: "7"`, 1))
	deadline := time.Now().Add(patience)
	for answers, _ = h.ask(t, question); answers[0].State != ledger.Held; answers, _ = h.ask(t, question) {
		if time.Now().After(deadline) {
			t.Fatalf("never held: %+v", answers)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if g := answers[0].Generation; g != before+1 {
		t.Errorf("held since generation %d, want the one after %d", g, before)
	}
	found := false
	for _, c := range answers[0].Conditions {
		found = found || c.Type != "" && c.Reason != ""
	}
	if !found {
		t.Errorf("nothing is said of the policy: %+v", answers[0])
	}
	for {
		s := stood()
		if len(s.Clients) == 1 && len(s.Clients[0].Types) == 2 && s.Clients[0].Types[0].Acked >= answers[0].Generation && s.Clients[0].Types[1].Acked >= answers[0].Generation {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never acknowledged: %+v", s)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err := os.Remove(filepath.Join(h.dir, "policy.yaml")); err != nil {
		t.Fatal(err)
	}
	for answers, _ = h.ask(t, question); answers[0].State != ledger.Pending; answers, _ = h.ask(t, question) {
		if time.Now().After(deadline) {
			t.Fatalf("held though it is gone: %+v", answers)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestQuestionsThatAreNoneAreRefused(t *testing.T) {
	h := startHouse(t)
	for _, body := range []string{"", "{}", `[{"name":7}]`, "[" + strings.Repeat(" ", maxQuestions) + "]"} {
		if _, status := h.ask(t, body); status != http.StatusBadRequest {
			t.Errorf("%.20q…: status %d, want 400", body, status)
		}
	}
}

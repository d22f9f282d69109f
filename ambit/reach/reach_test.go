package reach_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

func TestAMissingKubeconfigIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "config")
	t.Setenv("KUBECONFIG", missing)
	for _, host := range []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv(host, "")
	}
	_, err := reach.Open("", "")
	if err == nil || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("error is %v", err)
	}
	if _, err := reach.Open(missing, ""); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error is %v", err)
	}
}

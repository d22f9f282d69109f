//go:build e2e

package suite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/e2e/trial"
)

// fewOfTheOfficial are tests of the official suite that touch most of a
// waypoint's way: no route at all, matching, weights by connection, and weights
// by call of one gRPC connection. `make conformance` runs all.
var fewOfTheOfficial = []string{"MeshBasic", "MeshHTTPRouteMatching", "MeshHTTPRouteWeight", "MeshGRPCRouteWeight"}

// TestAFewOfTheOfficialConformanceTestsPass: with an explicit waypoint, as the
// mode "standard" of `make conformance`. Its namespaces are the suite's, so it
// is not given a scene, and has no second attempt.
func TestAFewOfTheOfficialConformanceTestsPass(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*promiseLimit, errors.New("the suite did not end in time"))
	defer cancel()
	binary, err := trial.Build(ctx, mesh.Checkout)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mesh.Checkout, "build", "conformance")
	results, err := trial.Run(ctx, trial.Config{
		Stage: mesh, Binary: binary, Mode: trial.Modes()[0], Name: "few", Dir: dir, Only: fewOfTheOfficial, Version: "v0.0.0-test", Progress: os.Stderr,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", results.Table())
	if failed := results.Failed(); len(failed) > 0 {
		t.Errorf("%s (the suite's log and those of the mesh are in %s)", strings.Join(failed, "; "), dir)
	}
}

package wire

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire/securitypb"
)

func TestADryRunHasNoEffectOnProxiesThatDoNotKnowTheMark(t *testing.T) {
	var on securitypb.Authorization
	if err := proto.Unmarshal(MarshalPolicy(fullPolicy()), &on); err != nil {
		t.Fatal(err)
	}
	// A DENY without rules matches nothing; an ALLOW without rules would close.
	if on.GetAction() != securitypb.Action_DENY || len(on.GetRules()) != 0 || !on.GetDryRun() {
		t.Errorf("on the wire it is %v, want a DENY without rules that is marked", &on)
	}
	enforced := fullPolicy()
	enforced.DryRun = false
	if err := proto.Unmarshal(MarshalPolicy(enforced), &on); err != nil || len(on.GetRules()) == 0 || len(on.GetExtensions()) != 0 {
		t.Errorf("an enforced policy is %v on the wire, %v", &on, err)
	}
}

func TestADryRunOfAnUpstreamControlPlaneIsRead(t *testing.T) {
	want := fullPolicy()
	if got, err := UnmarshalPolicy("shop/p", marshal(writePolicy(want))); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it came back as %+v, %v", got, err)
	}
}

func TestADryRunThatCannotBeReadStaysOne(t *testing.T) {
	for sentence, config := range map[string]*anypb.Any{
		"of another type": {TypeUrl: "type.googleapis.com/google.protobuf.Empty"},
		"of no bytes that can be read": {
			TypeUrl: "type.googleapis.com/istio.security.Authorization", Value: []byte{0xff},
		},
		"of a later version": {
			TypeUrl: "type.googleapis.com/istio.security.Authorization", Value: []byte{0xc0, 0x3e, 0x01}, // field 1000
		},
	} {
		body := hide(writePolicy(fullPolicy()))
		body.Extensions[0].Config = config
		p, err := UnmarshalPolicy("shop/p", marshal(body))
		if err == nil || p == nil || !p.DryRun || p.Scope != mesh.ScopeSelector {
			t.Errorf("%s: read as %+v, %v; want an error and what must not be closed", sentence, p, err)
		}
	}
}

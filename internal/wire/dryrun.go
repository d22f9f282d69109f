package wire

import (
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/wire/securitypb"
)

// dryRunName names our extension of a dry-run policy: the policy itself.
const dryRunName = "ambit.dry-run"

// hide puts a dry-run policy into an extension of one that does nothing: ztunnels
// of Istio before 1.29 do not know the mark, and would enforce it (dataplane
// spec 5.6). A DENY without rules denies nothing.
func hide(real *securitypb.Authorization) *securitypb.Authorization {
	body := marshal(real)
	return &securitypb.Authorization{
		Name: real.Name, Namespace: real.Namespace, Scope: real.Scope, Action: securitypb.Action_DENY, DryRun: true,
		Extensions: []*securitypb.Extension{{Name: dryRunName, Config: &anypb.Any{
			TypeUrl: "type.googleapis.com/" + string(real.ProtoReflect().Descriptor().FullName()), Value: body,
		}}},
	}
}

// reveal puts what was hidden in its place. An upstream control plane hides
// nothing.
func reveal(in *securitypb.Authorization) error {
	for _, e := range in.GetExtensions() {
		if e.GetName() != dryRunName {
			continue
		}
		var real securitypb.Authorization
		if err := e.GetConfig().UnmarshalTo(&real); err != nil {
			return fmt.Errorf("extension %s: %w", dryRunName, err)
		}
		if err := understood(&real); err != nil {
			return fmt.Errorf("extension %s: %w", dryRunName, err)
		}
		in.Action, in.Rules = real.GetAction(), real.GetRules()
	}
	return nil
}

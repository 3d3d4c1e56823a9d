package core_test

import "github.com/keystile/keystile/core/policy/compile"

var noOptions compile.Options
